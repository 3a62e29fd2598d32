"""Load on a service and what became of it, for `patchserve bench`. Deciding and drawing are apart from sending."""
