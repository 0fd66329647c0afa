"""What is watched while a model trains, and what is done about it: one file per group of signals.

gradients      every step: gradients and losses that are not finite, explode, diverge, vanish
likelihood     held-out likelihood that rises; latent dimensions of a VAE that carry nothing
discriminator  a discriminator that wins too easily, or knows its training records by heart
diversity      coverage, missing classes and clusters, duplicates, copies of training records
health         reads them all at every validation, and decides
"""
