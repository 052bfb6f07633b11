"""Second derivatives: products, explicit Hessians of small models, conjugate gradients. Usable alone."""
