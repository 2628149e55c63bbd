"""The objects of an installation, their settings, and what is written from them. Needs no cluster and no Helm."""
