"""Who makes vectors: servers that speak the OpenAI API, and engines that we start ourselves."""
