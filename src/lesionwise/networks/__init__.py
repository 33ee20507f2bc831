"""Network architectures, one file per family.

The contract of a network. It is a ``torch.nn.Module`` that any recipe can name and that training,
sliding windows and OpenVINO know nothing about but this:

- **Input**: (B, C, I, J, K) float32 on the module's device. C counts the scans of all visits:
  every scan of the first visit, then every scan of the second. A network on planes takes K slices
  (``planes.InPlane``). Its docstring says what each side must be a multiple of; patches of a recipe
  fit it.
- **Output**: (B, M, I, J, K) float32 without activation. A tuple of such is allowed: in training
  for several resolutions, the full one first and each further one coarser; in prediction for
  whatever the recipe's targets read. The precision of what comes before the output is up to the
  caller (autocast), that of the output is not.
  Networks that end in an activation of their own, between 0 and 1, go with the targets
  ``SoftMasks``.
- **Smaller outputs**: the output may be smaller along any axis by an even number of voxels (or by
  none) if it belongs to the middle of the input: convolutions without padding, or several slices
  in and the middle one out. The sliding window sees this by itself.
- **Last layer**: a ``blocks.Head`` for each output, which stays float32 under autocast, starts
  from the targets' initial logits (``blocks.init_head_bias``) and is computed by torch where
  OpenVINO computes the rest. A network that ends otherwise works, without these three.
- **Conditions**: a class attribute ``conditions: tuple[str, ...] = ("spacing_mm",)`` names what
  else ``forward`` takes, by keyword: one tensor (B, n) for each name, such as ``spacing_mm``
  (B, 3) along i, j, k. Callers use ``inference.window.call_network``.
- **Modes**: ``eval()`` makes it deterministic: the same patch gives the same output whatever else
  is in the batch. Dropout is by modules, not by functions, so that it can be left on in prediction.
- **Weights**: all of them in ``state_dict()``, none named ``parts``. An encoder that is to
  be carried over alone is a submodule of its own, such as ``encoder``.
"""
