"""Whether this installation works: what it consists of, and a registration with a known answer.

``checks`` looks at the parts one by one, ``self_test`` registers an image whose deformation is
known, ``examine`` does both. Nothing is changed, but for what every command keeps in the cache.
"""
