"""Caffe's messages: `from caffe_proto import caffe_pb2`.

`caffe.proto` is the schema, `caffe.desc` the same compiled, `caffe_pb2` its classes and `caffe_pb2.pyi` their types for editors.
After a change of the schema, `python -m caffe_proto.compile` makes the two compiled files anew.
"""
