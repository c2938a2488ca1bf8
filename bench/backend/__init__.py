"""Hold everything that knows TensorFlow's run time; a second Keras backend would be a second room like this.

- `devices`: choose a device, wait for it, read its memory, its precision and its fastest product;
- `layers`: build a case's layer, find its cells, count a step's operations; `dropout_masks`: what they drop;
- `programs`: compile a layer for a case, `compile_program` -> `Program`; `kernels`: which kernel runs it;
- `data`: what goes in and comes out, as NumPy arrays; `flops`: operations counted in a graph.

Imports timing, records, contract and cases.
"""
