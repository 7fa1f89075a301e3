"""A page on this machine that shows what a model makes of a photograph: `lesionseg demo`."""
