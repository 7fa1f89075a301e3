"""Segment skin lesions in dermoscopic photographs: the library behind the stages."""
