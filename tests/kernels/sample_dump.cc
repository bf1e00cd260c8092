// For typical_oracle_test.py: draws tokens of one row of logits, fp32 from stdin, and writes how
// often it drew each one to stdout, as int32. The arguments are the fields below in their order,
// then how many tokens are drawn.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/sample.h"

namespace fathom::kernels {
namespace {

int Main(int argc, char** argv) {
  if (argc != 7) return 2;
  int next = 1;
  const auto number = [&] { return std::strtod(argv[next++], nullptr); };
  SamplerParams params;
  params.temperature = static_cast<float>(number());
  params.top_k = static_cast<int32_t>(number());
  params.top_p = static_cast<float>(number());
  params.min_p = static_cast<float>(number());
  params.typical_p = static_cast<float>(number());
  const auto draws = static_cast<int32_t>(number());
  std::vector<float> logits;
  for (float z = 0; std::fread(&z, sizeof(z), 1, stdin) == 1;) logits.push_back(z);
  std::vector<int32_t> counts(logits.size());
  SampleScratch scratch;
  for (int32_t i = 0; i < draws; ++i) {
    const SampleArgs args{
        .logits = logits, .params = params, .seed = 5, .position = i, .scratch = &scratch};
    ++counts[static_cast<size_t>(SampleCpu(args))];
  }
  std::fwrite(counts.data(), sizeof(int32_t), counts.size(), stdout);
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace
}  // namespace fathom::kernels

int main(int argc, char** argv) { return fathom::kernels::Main(argc, argv); }
