"""What people do with sandboxes. Each product is a package of its own and sees services only, as any API caller."""
