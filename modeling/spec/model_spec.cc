#include "modeling/spec/model_spec.h"

namespace fathom {

std::vector<Parameter> ExpectedTensors(const ModelSpec& spec) {
  std::vector<Parameter> tensors = {spec.embedding};
  const auto add = [&](const std::vector<LayerSpec>& layers) {
    for (const LayerSpec& layer : layers) {
      tensors.insert(tensors.end(), layer.parameters.begin(), layer.parameters.end());
    }
  };
  add(spec.layers);
  tensors.push_back(spec.final_norm);
  if (spec.lm_head) tensors.push_back(*spec.lm_head);
  add(spec.draft_layers);
  return tensors;
}

int64_t LayerMatrixElements(const ModelSpec& spec) {
  int64_t elements = 0;
  for (const LayerSpec& layer : spec.layers) {
    for (const Parameter& parameter : layer.parameters) {
      if (parameter.precision == Precision::kMatrix) elements += parameter.elements();
    }
  }
  return elements;
}

int64_t HeadMatrixElements(const ModelSpec& spec) {
  return spec.lm_head ? spec.lm_head->elements() : spec.embedding.elements();
}

}  // namespace fathom
