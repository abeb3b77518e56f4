"""Where brains differ in shape and size: Jacobian maps, volumes, changes within a person."""
