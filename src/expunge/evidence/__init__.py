"""What was measured about models that exist: evidence reads tensors and examples, and never trains.

Retrained models come from their recipe, shadow models from ``training.shadow_models``, numbers with intervals from
``metrics``. Every function here runs models in evaluation mode, without gradients, and leaves weights and random state alone.
"""
