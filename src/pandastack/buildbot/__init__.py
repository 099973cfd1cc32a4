"""A latent worker for Buildbot (``worker.PandastackLatentWorker``): each build in a machine of its own.

Only this room knows Twisted, and of the platform it uses the client only.
"""
