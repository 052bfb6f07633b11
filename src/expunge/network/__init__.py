"""Peers without a server, simulated: who may talk to whom, how models are averaged, and how they are trained."""
