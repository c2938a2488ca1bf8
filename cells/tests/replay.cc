// Runs calls of a native program that were recorded, without TensorFlow: of its C interface here is what the program asks.
//
//   replay CALLS RESULTS
//
// Linked with `support.cc` and a program, for any machine. `replay.py` has the format of the two files. Memory is exactly
// as large as a tensor and begins as NaN, so that a sanitizer sees what is read or written beside one, and a comparison
// what is not written.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

struct TSL_Status {
  TF_Code code = TF_OK;
  std::string message;
};
struct TF_Tensor {
  int64_t number_size = 0;
  std::vector<int64_t> shape;
  std::shared_ptr<char> data;

  int64_t count() const {
    int64_t product = 1;
    for (int64_t size : shape) product *= size;
    return product;
  }
  void allocate() {
    char* memory = static_cast<char*>(malloc(count() * number_size));
    memset(memory, 0xff, count() * number_size);
    data = std::shared_ptr<char>(memory, free);
  }
};
struct TF_OpKernelConstruction {
  std::map<std::string, int64_t> attributes;
};
struct TF_OpKernelContext {
  bool forwards;
  std::vector<TF_Tensor> inputs, outputs;
  std::string failure;
};
struct TF_OpDefinitionBuilder {
  std::string name;
  std::vector<std::string> outputs;
};
struct TF_KernelBuilder {
  void* (*create)(TF_OpKernelConstruction*);
  void (*compute)(void*, TF_OpKernelContext*);
  void (*destroy)(void*);
};

namespace {

// What the program has registered, by the name of the operation.
template <typename Value>
std::map<std::string, Value>& registered() {
  static std::map<std::string, Value> found;
  return found;
}

FILE *calls, *results;

void check(bool is_right, const char* wrong) {
  if (is_right) return;
  fprintf(stderr, "replay: %s\n", wrong);
  exit(1);
}
int64_t read_integer() {
  int64_t value;
  check(fread(&value, sizeof value, 1, calls) == 1, "the calls end too early");
  return value;
}
void write_integer(int64_t value) { fwrite(&value, sizeof value, 1, results); }
std::string read_text() {
  std::string text(read_integer(), ' ');
  check(fread(&text[0], 1, text.size(), calls) == text.size(), "the calls end too early");
  return text;
}
TF_Tensor read_tensor() {
  TF_Tensor tensor;
  tensor.number_size = read_integer();
  tensor.shape.resize(read_integer());
  for (int64_t& size : tensor.shape) size = read_integer();
  tensor.allocate();
  const size_t bytes = tensor.count() * tensor.number_size;
  check(fread(tensor.data.get(), 1, bytes, calls) == bytes, "the calls end too early");
  return tensor;
}
void write_tensor(const TF_Tensor& tensor) {
  write_integer(tensor.number_size);
  write_integer(tensor.shape.size());
  for (int64_t size : tensor.shape) write_integer(size);
  fwrite(tensor.data.get(), 1, tensor.count() * tensor.number_size, results);
}

TF_Tensor* give(TF_OpKernelContext* context, int index, TF_Tensor made) {
  check(index >= 0 && index < int(context->outputs.size()), "the program makes an output that it has not declared");
  context->outputs[index] = made;
  return new TF_Tensor(made);
}
int64_t attribute(TF_OpKernelConstruction* construction, const char* name) {
  check(construction->attributes.count(name), "the program asks for an attribute that was not recorded");
  return construction->attributes[name];
}

void run_call() {
  const std::string direction = read_text();
  TF_OpKernelConstruction construction;
  for (int64_t left = read_integer(); left; left--) {
    const std::string name = read_text();
    construction.attributes[name] = read_integer();
  }
  TF_OpKernelContext context;
  context.forwards = attribute(&construction, "in_place");
  context.inputs.resize(read_integer());
  for (TF_Tensor& input : context.inputs) input = read_tensor();
  check(registered<TF_KernelBuilder>().count(direction), "the program has no such operation");
  context.outputs.resize(registered<TF_OpDefinitionBuilder>()[direction].outputs.size());

  const TF_KernelBuilder& kernel = registered<TF_KernelBuilder>()[direction];
  void* made = kernel.create(&construction);
  kernel.compute(made, &context);
  kernel.destroy(made);
  check(context.failure.empty(), context.failure.c_str());
  write_integer(context.outputs.size());
  for (const TF_Tensor& output : context.outputs) write_tensor(output);
}

}  // namespace

extern "C" {

TF_Status* TF_NewStatus() { return new TF_Status; }
void TF_DeleteStatus(TF_Status* status) { delete status; }
TF_Code TF_GetCode(const TF_Status* status) { return status->code; }
void TF_SetStatus(TF_Status* status, TF_Code code, const char* message) { *status = {code, message}; }

void TF_DeleteTensor(TF_Tensor* tensor) { delete tensor; }
int TF_NumDims(const TF_Tensor* tensor) { return tensor->shape.size(); }
int64_t TF_Dim(const TF_Tensor* tensor, int axis) { return tensor->shape.at(axis); }
int64_t TF_TensorElementCount(const TF_Tensor* tensor) { return tensor->count(); }
void* TF_TensorData(const TF_Tensor* tensor) { return tensor->data.get(); }

int TF_NumInputs(TF_OpKernelContext* context) { return context->inputs.size(); }
void TF_GetInput(TF_OpKernelContext* context, int index, TF_Tensor** tensor, TF_Status*) {
  *tensor = new TF_Tensor(context->inputs[index]);
}
void TF_OpKernelContext_Failure(TF_OpKernelContext* context, TF_Status* status) { context->failure = status->message; }
TF_Tensor* TF_AllocateOutput(TF_OpKernelContext* context, int index, TF_DataType dtype, const int64_t* shape, int rank,
                             size_t, TF_Status*) {
  TF_Tensor made;
  made.number_size = dtype == TF_DOUBLE ? 8 : 4;
  made.shape.assign(shape, shape + rank);
  made.allocate();
  return give(context, index, made);
}
TF_Tensor* TF_ForwardInputOrAllocateOutput(TF_OpKernelContext* context, const int* candidates, int, int index,
                                           const int64_t* shape, int rank, int*, TF_Status*) {
  TF_Tensor made = context->inputs[candidates[0]];
  made.shape.assign(shape, shape + rank);
  if (!context->forwards) made.allocate();
  return give(context, index, made);
}

bool TF_OpKernelConstruction_HasAttr(TF_OpKernelConstruction* construction, const char* name, TF_Status*) {
  return construction->attributes.count(name);
}
void TF_OpKernelConstruction_GetAttrBool(TF_OpKernelConstruction* construction, const char* name, TF_Bool* value,
                                         TF_Status*) {
  *value = attribute(construction, name) != 0;
}
void TF_OpKernelConstruction_GetAttrInt32(TF_OpKernelConstruction* construction, const char* name, int32_t* value,
                                          TF_Status*) {
  *value = attribute(construction, name);
}
void TF_OpKernelConstruction_GetAttrInt64(TF_OpKernelConstruction* construction, const char* name, int64_t* value,
                                          TF_Status*) {
  *value = attribute(construction, name);
}
void TF_OpKernelConstruction_Failure(TF_OpKernelConstruction*, TF_Status*) { check(false, "an attribute is refused"); }

TF_OpDefinitionBuilder* TF_NewOpDefinitionBuilder(const char* name) { return new TF_OpDefinitionBuilder{name, {}}; }
void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder*, const char*) {}
void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder* builder, const char* output) {
  builder->outputs.push_back(output);
}
void TF_OpDefinitionBuilderAddAttr(TF_OpDefinitionBuilder*, const char*) {}
void TF_OpDefinitionBuilderSetShapeInferenceFunction(TF_OpDefinitionBuilder*,
                                                     void (*)(TF_ShapeInferenceContext*, TF_Status*)) {}
void TF_ShapeInferenceContextSetUnknownShape(TF_ShapeInferenceContext*, TF_Status*) {}
void TF_RegisterOpDefinition(TF_OpDefinitionBuilder* builder, TF_Status*) {
  registered<TF_OpDefinitionBuilder>()[builder->name] = *builder;
  delete builder;
}
TF_KernelBuilder* TF_NewKernelBuilder(const char*, const char*, void* (*create)(TF_OpKernelConstruction*),
                                      void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  return new TF_KernelBuilder{create, compute, destroy};
}
void TF_RegisterKernelBuilder(const char* name, TF_KernelBuilder* builder, TF_Status*) {
  registered<TF_KernelBuilder>()[name] = *builder;
  delete builder;
}
}

int main(int, char** arguments) {
  calls = fopen(arguments[1], "rb");
  results = fopen(arguments[2], "wb");
  check(calls && results, "a file cannot be opened");
  for (int64_t left = read_integer(); left; left--) run_call();
  fclose(results);
}
