"""Where image-mask pairs come from: one module a source, one interface.

A source is a module with a function

    fetch(target: Path, *, ...) -> list[Pair]

that fills the new directory `target` with `images/<id>.<ext>`, `masks/<id>_segmentation.<ext>` and whatever
attribution belongs beside them, and returns one `manifest.Pair` for every pair, sorted by id. It checks
all it can before it writes anything, and raises InputError with everything there is to mend. Pairs are
matched by id, never by listing order, and the ids kept under a limit are those of `subset.choose_subset`. The
caller owns the directory: it creates it, writes the manifest, and clears up after a failure.
"""
