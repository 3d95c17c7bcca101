"""Operations of torch by what they do to the elements and the places of a tensor."""

from __future__ import annotations

from typing import Any

# What hands a tensor on as it is, so that the question goes on to what reads the result.
PASSING = {"dropout", "dropout2d", "contiguous", "alpha_dropout", "view", "reshape", "flatten",
           "detach", "to", "float", "permute", "transpose", "feature_dropout", "clone", "half",
           "double", "bfloat16", "type_as", "view_as", "reshape_as"}  # fmt: skip
# What computes each element of its result from the same element of its arguments.
ELEMENTWISE = {
    "add", "sub", "mul", "div", "pow", "neg", "abs", "square", "sqrt", "rsqrt", "reciprocal",
    "exp", "expm1", "log", "log1p", "erf", "erfc", "sin", "cos", "clamp", "clamp_min", "clamp_max",
    "clip", "maximum", "minimum", "where", "masked_fill", "sign", "heaviside", "zeros_like",
    "ones_like", "gt", "ge", "lt", "le", "eq", "ne", "logsigmoid", "true_divide", "truediv",
    "multiply", "divide", "subtract", "logical_not", "threshold", "exp2", "addcmul", "max", "min",
    "full_like", "atan",
}  # fmt: skip
PARTS = {"chunk", "split", "unbind", "tensor_split", "getitem", "narrow", "select"}
# What asks for a shape or a type, or makes something of the same one: no value is read.
NO_READING = {"__get__", "__set__", "size", "dim", "__len__", "is_floating_point", "numel",
              "register_hook", "is_contiguous", "stride", "nelement", "ndimension", "is_complex",
              "is_same_size", "get_device", "element_size", "data_ptr", "storage_offset",
              "__hash__", "new_tensor", "new_zeros", "new_ones", "new_full", "new_empty",
              "empty_like", "rand_like", "randn_like", "retain_grad", "requires_grad"}  # fmt: skip
# Attributes that give a tensor's elements in another order.
TURNED = {"T": "transpose", "mT": "transpose", "H": "transpose", "mH": "transpose"}
# What takes the shape or the type of a second tensor, without its values.
LIKE = {"view_as", "reshape_as", "expand_as", "type_as", "to"}
# What changes no place: a result of the shape of what it reads has that at the same places.
IN_PLACE = ELEMENTWISE | {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm",
                          "normalize", "logsigmoid", "softmax", "log_softmax"}  # fmt: skip
# What only moves elements about, drops some or stands others beside them.
MOVES = {"view", "reshape", "flatten", "permute", "transpose", "unflatten", "movedim", "moveaxis",
         "swapaxes", "squeeze", "unsqueeze", "roll", "flip", "pad", "narrow", "select", "chunk",
         "split", "unbind", "tensor_split", "getitem", "t", "view_as", "reshape_as",
         "unfold"}  # fmt: skip
# What gives maps [b, u, h, w], or [b, u, n], for such ones, by their number of dimensions: each
# place of the result is a place of what it reads.
SPATIAL = dict.fromkeys(
    ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "lp_pool2d", "interpolate",
     "adaptive_avg_pool2d", "adaptive_max_pool2d", "pad", "upsample", "pixel_shuffle",
     "pixel_unshuffle"), 4) | {"conv1d": 3}  # fmt: skip
ATTENDING = {"scaled_dot_product_attention", "multi_head_attention_forward"}
PRODUCTS = {"matmul", "rmatmul", "bmm", "mm"}
# What makes one element of several along an axis.
POOLING = {"amax", "amin", "max", "min", "mean", "sum"}


def operation(func: Any) -> str:
    """Return an operation's name without the marks of operators and of working in place.

    What is asked of a tensor as an attribute goes by the name of the function that gives the same.
    """
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        return TURNED.get(getattr(getattr(func, "__self__", None), "__name__", ""), name)
    if not name.startswith("__"):
        return name.rstrip("_")
    bare = name.strip("_")
    if bare[1:] in ELEMENTWISE and bare[0] in "ri":
        return bare[1:]
    return name if name in NO_READING else bare
