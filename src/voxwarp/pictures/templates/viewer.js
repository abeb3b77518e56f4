import { Niivue, SLICE_TYPE } from "./niivue.js";

const layers = JSON.parse(document.getElementById("layers").textContent);
const where = document.getElementById("where");
const sliders = [...document.querySelectorAll("input[data-layer]")];
const opacity = index => Number(sliders[index].value);
const views = {
  multi: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL, render: SLICE_TYPE.RENDER,
};

// Colours of labels: hues a golden angle apart, so that successive labels differ.
function colours(count) {
  const map = { R: [0], G: [0], B: [0], A: [0], I: [0] };
  for (let i = 1; i < count; i++) {
    const hue = (i * 137.508) % 360, light = 0.4 + 0.1 * (i % 3);
    const part = n => {
      const k = (n + hue / 30) % 12;
      return Math.round(255 * (light - 0.8 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    };
    map.R.push(part(0)); map.G.push(part(8)); map.B.push(part(4)); map.A.push(255); map.I.push(i);
  }
  return map;
}

function showLocation(location) {
  const mm = [...location.mm].slice(0, 3).map(x => x.toFixed(1)).join(", ");
  const values = layers.map((layer, i) => {
    const value = location.values[i]?.value;
    if (value === undefined) return "";
    if (layer.kind === "image") return `${layer.name} ${Number(value.toPrecision(4))}`;
    return value ? `${layer.name} ${layer.values[value] ?? value}` : "";
  });
  where.textContent = [`Right, anterior, superior: ${mm} mm`, ...values.filter(Boolean)].join(" · ");
}

const nv = new Niivue({
  backColor: [0, 0, 0, 1], crosshairColor: [0, 0.9, 1, 0.7], show3Dcrosshair: true,
  isColorbar: false, isOrientationTextVisible: true, dragAndDropEnabled: false, logLevel: "error",
});
nv.onLocationChange = showLocation;

async function start() {
  await nv.attachToCanvas(document.getElementById("canvas"));
  await nv.loadVolumes(layers.map((layer, i) => ({
    url: layer.url, name: `${layer.name}.nii.gz`, opacity: opacity(i), colormap: "gray",
  })));
  layers.forEach((layer, i) => {
    if (layer.kind === "labels") nv.volumes[i].setColormapLabel(colours(layer.values.length));
  });
  nv.setInterpolation(false);
  nv.setSliceType(views.multi);
  nv.opts.multiplanarForceRender = true;
  nv.updateGLVolume();
  nv.createOnLocationChange();
  for (const slider of sliders) {
    slider.addEventListener("input", () => nv.setOpacity(Number(slider.dataset.layer), Number(slider.value)));
  }
  document.getElementById("view").addEventListener("change", event => nv.setSliceType(views[event.target.value]));
  document.getElementById("colour").addEventListener("change", event => {
    nv.volumes[1].colormap = event.target.checked ? "warm" : "gray";
    nv.updateGLVolume();
  });
  const flicker = () => { // show one scan or the other, no blend
    sliders[1].value = opacity(1) < 1 ? 1 : 0;
    sliders[1].dispatchEvent(new Event("input"));
  };
  document.getElementById("flicker").addEventListener("click", flicker);
  const steps = {
    ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0],
    PageDown: [0, 0, -1], PageUp: [0, 0, 1],
  };
  document.getElementById("canvas").addEventListener("keydown", event => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    nv.moveCrosshairInVox(...steps[event.key]);
  });
  document.addEventListener("keydown", event => {
    if (event.target.closest("select, input[type=text]")) return;
    if (event.key === "f" && !event.ctrlKey && !event.metaKey && !event.altKey) flicker();
  });
  document.body.dataset.ready = "yes";
}

start().catch(error => { where.textContent = `The viewer cannot show this result: ${error.message ?? error}`; throw error; });
