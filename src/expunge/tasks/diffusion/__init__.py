"""Diffusion models that draw images of a class: noise schedule, network, task and sampling."""
