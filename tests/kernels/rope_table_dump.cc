// For rope_oracle_test.py: writes the cos table and then the sin table of a RopeSpec to stdout, as
// [positions][head_dim / 2] fp32. The arguments are the fields below in their order, then
// positions.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "kernels/rope_kv_write.h"

namespace fathom::kernels {
namespace {

RopeSpec::Scaling ScalingOf(std::string_view name) {
  if (name == "linear") return RopeSpec::Scaling::kLinear;
  if (name == "llama3") return RopeSpec::Scaling::kLlama3;
  if (name == "yarn") return RopeSpec::Scaling::kYarn;
  return RopeSpec::Scaling::kNone;
}

int Main(int argc, char** argv) {
  if (argc != 13) return 2;
  int next = 1;
  const auto number = [&] { return std::strtod(argv[next++], nullptr); };
  RopeSpec spec;
  spec.scaling = ScalingOf(argv[next++]);
  spec.head_dim = static_cast<int32_t>(number());
  spec.theta = number();
  spec.factor = number();
  spec.low_freq_factor = number();
  spec.high_freq_factor = number();
  spec.original_context = number();
  spec.beta_fast = number();
  spec.beta_slow = number();
  spec.truncate = number() != 0;
  spec.attention_factor = number();
  const RopeTable table = MakeRopeTable(spec, static_cast<int64_t>(number()));
  for (const auto* values : {&table.cos, &table.sin}) {
    std::fwrite(values->data(), sizeof(float), values->size(), stdout);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace
}  // namespace fathom::kernels

int main(int argc, char** argv) { return fathom::kernels::Main(argc, argv); }
