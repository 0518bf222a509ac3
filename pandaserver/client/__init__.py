"""The user's side: the `panda` command, and `pandaserver.client.api` for programs."""
