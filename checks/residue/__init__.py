"""The residue scan: every byte form of an identity, in every container it can open."""
