// What the programs of all engines share: the call of a TensorFlow operation, memory, and the product of matrices.

#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include "support.h"
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"
#include "vectors.h"

namespace {

constexpr TF_DataType NUMBERS = sizeof(Number) == 8 ? TF_DOUBLE : TF_FLOAT;

// The product for a number of vectors that is known here; see support.h.
template <int N, typename... Arguments>
void multiply(Arguments... arguments) {
  if constexpr (N == 1) fused_rnn_multiply1(arguments...);
  if constexpr (N == 2) fused_rnn_multiply2(arguments...);
  if constexpr (N == 3) fused_rnn_multiply3(arguments...);
  if constexpr (N == 4) fused_rnn_multiply4(arguments...);
}

// Where each of some vectors lies that lie in order.
template <int N>
struct Places {
  int at[N];
  Places() {
    for (int n = 0; n < N; n++) at[n] = n * LANES;
  }
};

// Asks for a place in a stack that the step after this will read or write. A step's rows lie a whole sequence apart, which
// the processor does not foresee: it would wait for the memory of each.
inline void expect(const Number* place) { __builtin_prefetch(place, 1); }
// The same of several numbers, as far as the processor does not follow by itself.
inline void expect(const Number* place, long size) {
  constexpr long LINE = 64 / sizeof(Number), FEW = 16 * LINE;
  for (long k = 0; k < size && k < FEW; k += LINE) expect(place + k);
}

// Memory that is freed at the end of the scope.
struct Memory {
  Number* at;
  explicit Memory(long size) : at(static_cast<Number*>(aligned_alloc(64, (size * sizeof(Number) + 127) / 64 * 64))) {}
  ~Memory() { free(at); }
  Memory(const Memory&) = delete;
  operator Number*() const { return at; }
};

// A call's tensors: its inputs in order, and its outputs.
class Tensors {
 public:
  explicit Tensors(TF_OpKernelContext* context) : context(context), status(TF_NewStatus()) {
    count = TF_NumInputs(context);
    tensors = static_cast<TF_Tensor**>(calloc(count, sizeof(TF_Tensor*)));
    for (int index = 0; index < count; index++) TF_GetInput(context, index, &tensors[index], status);
  }
  ~Tensors() {
    if (TF_GetCode(status) != TF_OK) TF_OpKernelContext_Failure(context, status);
    for (int index = 0; index < count; index++)
      if (tensors[index]) TF_DeleteTensor(tensors[index]);
    free(tensors);
    TF_DeleteStatus(status);
  }
  // The next input, which must have so many elements.
  const Number* next(const char* name, long elements) {
    TF_Tensor* tensor = tensors[at++];
    if (TF_TensorElementCount(tensor) != elements && !failed()) {
      char message[200];
      snprintf(message, sizeof message, "FusedRNN: the operand `%s` has %lld elements where there must be %ld",
               name, static_cast<long long>(TF_TensorElementCount(tensor)), elements);
      TF_SetStatus(status, TF_INVALID_ARGUMENT, message);
    }
    return static_cast<const Number*>(TF_TensorData(tensor));
  }
  // The same of a matrix or more; null where it is left out, which a vector in its place says.
  const Number* optional(const char* name, long elements) {
    if (rank() > 1) return next(name, elements);
    at++;
    return nullptr;
  }
  // A dimension of the input that comes next.
  long dimension(int axis) const { return TF_Dim(tensors[at], axis); }
  int rank() const { return TF_NumDims(tensors[at]); }
  int place() const { return at; }

  Number* output(int rank, int64_t a, int64_t b = 1, int64_t c = 1) {
    if (failed()) return nullptr;
    int64_t shape[] = {a, b, c};
    const size_t size = a * b * c * sizeof(Number);
    TF_Tensor* tensor = TF_AllocateOutput(context, made++, NUMBERS, shape, rank, size, status);
    if (TF_GetCode(status) != TF_OK) return nullptr;
    Number* data = static_cast<Number*>(TF_TensorData(tensor));
    TF_DeleteTensor(tensor);  // the context holds another reference
    return data;
  }
  // An output of three dimensions, or an empty one and null.
  Number* output_if(bool is_wanted, int64_t a, int64_t b, int64_t c) {
    if (is_wanted) return output(3, a, b, c);
    output(1, 0);
    return nullptr;
  }
  // An output in the place of an input of three dimensions, if nothing else needs that.
  Number* output_instead_of(int input) {
    if (failed()) return nullptr;
    int64_t shape[3];
    for (int axis = 0; axis < 3; axis++) shape[axis] = TF_Dim(tensors[input], axis);
    TF_DeleteTensor(tensors[input]);  // this reference to it would be another need
    tensors[input] = nullptr;
    int found;
    TF_Tensor* tensor =
        TF_ForwardInputOrAllocateOutput(context, &input, 1, made++, shape, 3, &found, status);
    if (TF_GetCode(status) != TF_OK) return nullptr;
    Number* data = static_cast<Number*>(TF_TensorData(tensor));
    TF_DeleteTensor(tensor);
    return data;
  }
  bool failed() const { return TF_GetCode(status) != TF_OK; }
  // Whether there is memory for what a call needs besides, as large as the weights or the batch.
  bool granted(std::initializer_list<const Number*> memory) {
    for (const Number* each : memory)
      if (!each) TF_SetStatus(status, TF_RESOURCE_EXHAUSTED, "FusedRNN: out of memory");
    return !failed();
  }

 private:
  TF_OpKernelContext* context;
  TF_Status* status;
  TF_Tensor** tensors;
  int count, at = 0, made = 0;
};

void unknown_shapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

// Registers an operation with its kernel: `specifications` are its inputs, "->", its outputs and a null; `attributes`
// end with a null too.
void add_operation(const char* name, const char* const* specifications, const char* const* attributes,
                   void* (*construct)(TF_OpKernelConstruction*), void (*compute)(void*, TF_OpKernelContext*),
                   void (*destroy)(void*)) {
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(name);
  bool is_output = false;
  for (; *specifications; specifications++)
    if (!strcmp(*specifications, "->"))
      is_output = true;
    else if (is_output)
      TF_OpDefinitionBuilderAddOutput(definition, *specifications);
    else
      TF_OpDefinitionBuilderAddInput(definition, *specifications);
  for (; *attributes; attributes++) TF_OpDefinitionBuilderAddAttr(definition, *attributes);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, unknown_shapes);
  TF_Status* status = TF_NewStatus();
  TF_RegisterOpDefinition(definition, status);
  if (TF_GetCode(status) == TF_OK)
    TF_RegisterKernelBuilder(name, TF_NewKernelBuilder(name, "CPU", construct, compute, destroy), status);
  TF_DeleteStatus(status);
}

}  // namespace
