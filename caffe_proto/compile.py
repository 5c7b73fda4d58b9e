"""`python -m caffe_proto.compile`: caffe.proto -> caffe.desc and caffe_pb2.pyi, beside it. Needs grpcio-tools."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def compile_schema(target: Path = HERE) -> None:
    """Write `caffe.desc` (a FileDescriptorSet without comments and positions) and `caffe_pb2.pyi` to the folder `target`.

    Raises ImportError without grpcio-tools, and RuntimeError where protoc finds fault; protoc itself prints what and where.
    """
    from grpc_tools import protoc

    arguments = [f"-I{HERE}", f"--descriptor_set_out={target / 'caffe.desc'}", f"--pyi_out={target}", str(HERE / "caffe.proto")]
    if status := protoc.main(["protoc", *arguments]):
        raise RuntimeError(f"protoc ended with status {status}")


if __name__ == "__main__":
    try:
        compile_schema()
    except ImportError:
        sys.exit("grpcio-tools is missing: pip install grpcio-tools")
    except RuntimeError as error:
        sys.exit(str(error))
