"""The networks: plain ``nn.Module``s that know nothing of losses, data or devices. One file a family."""
