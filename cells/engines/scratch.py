"""Graphs that are read and not kept: freed at once, where the garbage collector would come late or never.

A graph and its operations refer to each other, and take some 10 KB an operation: what a traced cell's graphs
hold until the collector runs is as much as a training step does.
"""

from contextlib import contextmanager

from tensorflow.python.framework import func_graph  # no public name


@contextmanager
def freed(graph):
    """Gives a graph, and frees it and its operations at the end: nothing may use them then.

    Args:
        graph: a `FuncGraph`, as that of a concrete function.
    """
    try:
        yield graph
    finally:
        func_graph.dismantle_func_graph(graph)


@contextmanager
def scratch_graph(name):
    """A new graph, which operations are added to and read from, and which is `freed` at the end."""
    with freed(func_graph.FuncGraph(name)) as graph, graph.as_default():
        yield graph


def run_once(function, *arguments):
    """Computes a `tf.function` of arguments once; its graph is `freed` then."""
    program = function.get_concrete_function(*arguments)
    with freed(program.graph):
        return program(*arguments)
