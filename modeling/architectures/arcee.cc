// Arcee (AFM): Llama with an MLP without a gate, whose activation is the squared ReLU.
#include <vector>

#include "modeling/architectures/architecture.h"
#include "modeling/config/config_fields.h"

namespace fathom {
namespace {

void ConfigureArcee(ConfigFields& fields, ModelConfig&) {
  fields.MustBe("attention_bias", false, "ArceeForCausalLM is supported without attention biases");
  fields.MustBe("mlp_bias", false, "ArceeForCausalLM is supported without biases in its MLP");
}

ModelSpec ArceeSpec(const ModelConfig& config) {
  ModelSpec spec = DecoderSpec(config);
  for (LayerSpec& layer : spec.layers) {
    layer.mlp.kind = MlpKind::kSquaredRelu;
    std::erase_if(layer.parameters,
                  [](const Parameter& each) { return each.role == ParameterRole::kGate; });
  }
  return spec;
}

}  // namespace

extern const Architecture kArcee = {"ArceeForCausalLM",
                                    "arcee",
                                    {.context = 4096, .rms_eps = 1e-5, .activation = "relu2"},
                                    ConfigureArcee,
                                    ArceeSpec};

}  // namespace fathom
