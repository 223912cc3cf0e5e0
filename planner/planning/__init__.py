"""Planning: which pipelines serve which DNN on which devices."""
