"""Images per second, ours and that of others' code, measured turn by turn on this machine."""
