"""Where image-mask pairs come from: one module per source, one interface.

A source is a module with a function

    fetch(target: Path, *, ...) -> list[Pair]

that fills the new directory `target` with `images/<id>.<ext>`, `masks/<id>_segmentation.<ext>` and any attribution
texts, and returns one `manifest.Pair` per pair, sorted by id. It checks all it can before it writes anything, and
raises InputError with everything that needs mending. Pairs are matched by id, never by listing order; under a limit
`subset.choose_subset` selects the ids. The caller creates the directory, writes the manifest, and cleans up after a
failure.
"""
