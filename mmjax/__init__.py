"""mmjax: multimodal models in JAX and Flax, from one config."""
