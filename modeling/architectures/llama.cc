// Llama, as DeepSeek-LLM, DeepSeek-Coder and the R1 distillations of Llama 3 use it.
#include "modeling/architectures/architecture.h"
#include "modeling/config/config_fields.h"

namespace fathom {
namespace {

void ConfigureLlama(ConfigFields& fields, ModelConfig&) {
  fields.MustBe("attention_bias", false, "LlamaForCausalLM is supported without attention biases");
  fields.MustBe("mlp_bias", false, "LlamaForCausalLM is supported without biases in its MLP");
}

}  // namespace

extern const Architecture kLlama = {
    "LlamaForCausalLM", "llama", {.context = 2048}, ConfigureLlama, DecoderSpec};

}  // namespace fathom
