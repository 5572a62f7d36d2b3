"""Runs any ASGI app in production: `python -m berth.server`, and its migrations first.

Nothing in here knows the app, and no app need know of this: what Berth promises, it promises from
outside of it. Imports are relative, so that in an image the package can have a name that collides
with no package of the app's.
"""
