"""The classes of `caffe.proto`, in a descriptor pool of their own.

A generated module would use protobuf's default pool, where another library's `package caffe` (Caffe itself, a fork, a converter)
is a conflict that ends the import. Here both live side by side: their messages are unrelated classes with the same wire format.

Names are those of a generated module: `NetParameter`, `Phase`, `TRAIN`, `PoolingParameter.MAX`, `DESCRIPTOR`; `pool` is the pool.
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf.internal import api_implementation
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

if api_implementation.Type() == "upb":
    # What the public modules below hand out, without the pure Python runtime that they import first: half the start-up time.
    from google._upb._message import DescriptorPool, MessageMeta
else:
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.reflection import GeneratedProtocolMessageType as MessageMeta


def _file_descriptor() -> bytes:
    """The one file of the FileDescriptorSet `caffe.desc`: what follows its tag and its length, a varint."""
    data = __spec__.loader.get_data(str(Path(__file__).with_name("caffe.desc")))  # reads from zip files, too
    start = next(i for i in range(1, len(data)) if data[i] < 0x80) + 1
    return data[start:]


pool = DescriptorPool()
DESCRIPTOR = pool.AddSerializedFile(_file_descriptor())

for _name, _enum in DESCRIPTOR.enum_types_by_name.items():
    globals()[_name] = EnumTypeWrapper(_enum)
    globals().update((value.name, value.number) for value in _enum.values)

for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = MessageMeta(_name, (Message,), {"DESCRIPTOR": _message, "__module__": __name__})
