"""Whether a graph network forgot, or only its graph was edited: attributions, structure, replay and attacks, each by itself.

Only *replay* decides: the weights after the deletion are run on the graph as it was before it, and compared with models that
were retrained without what was deleted. Read on the graph that was cut, a model that was never changed looks as if it had
forgotten: the share of attribution on nodes that are gone is zero whatever the weights are.
"""
