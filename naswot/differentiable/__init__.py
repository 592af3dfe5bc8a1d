"""Searches by one supernet: parts that combine freely, and the published methods as combinations of them."""
