// Measures how fast weights reach the GPU: weight_load_bench MODEL [format] [dtype] [readers]
// [piece bytes]. MODEL is a folder (tests/gpu/make_model.py makes large ones) or, with the format
// dummy, a configuration file. The program makes three loads and prints a line of JSON for each;
// the first one may find a cold page cache.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/spec/rank_model.h"
#include "worker/cuda/device_weights.h"

namespace fathom::worker {
namespace {

constexpr int kLoads = 3;

absl::Status Run(int argc, char** argv) {
  if (argc < 2) {
    return Invalid(
        "give a model folder [auto|safetensors|raw|dummy] [bfloat16|half] [readers] "
        "[piece bytes]");
  }
  FATHOM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(argv[1]));
  FATHOM_ASSIGN_OR_RETURN(const LoadFormat format, ParseLoadFormat(argc > 2 ? argv[2] : "auto"));
  const bool half = argc > 3 && std::string_view(argv[3]) == "half";
  const auto dtype = half ? kernels::DType::kF16 : kernels::DType::kBf16;
  LoadOptions options;
  if (argc > 4) options.readers = std::atoi(argv[4]);
  if (argc > 5) options.piece_bytes = std::atoll(argv[5]);
  const auto begin = std::chrono::steady_clock::now();
  FATHOM_ASSIGN_OR_RETURN(const auto checkpoint, OpenCheckpoint(argv[1], config, format));
  const double open_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  const RankModel model = RankOf(SpecOf(config));
  const int64_t bytes = LayOutDeviceWeights(model, dtype).bytes;
  void* arena = nullptr;
  if (const cudaError_t error = cudaMalloc(&arena, static_cast<size_t>(bytes));
      error != cudaSuccess) {
    return Exhausted("{} bytes: {}", bytes, cudaGetErrorString(error));
  }
  for (int load = 0; load < kLoads; ++load) {
    LoadReport report;
    const auto weights =
        LoadDeviceWeights(model, *checkpoint, dtype, arena, bytes, &report, options);
    if (!weights.ok()) return weights.status();
    fmt::print(
        "{{\"id\": \"weight_load\", \"value\": {:.3f}, \"unit\": \"GB/s\", \"load\": {}, "
        "\"bytes\": "
        "{}, \"readers\": {}, \"piece_bytes\": {}, \"open_ms\": {:.1f}, \"pin_us\": {}, "
        "\"read_us\": "
        "{}, \"convert_us\": {}, \"copy_us\": {}, \"scan_us\": {}, \"total_us\": {}}}\n",
        static_cast<double>(bytes) / 1e3 / static_cast<double>(report.total_us), load, bytes,
        report.readers, options.piece_bytes, open_ms, report.pin_us, report.read_us,
        report.convert_us, report.copy_us, report.scan_us, report.total_us);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace fathom::worker

int main(int argc, char** argv) {
  const absl::Status status = fathom::worker::Run(argc, argv);
  if (status.ok()) return 0;
  fmt::print(stderr, "weight_load_bench: {}\n", fathom::Message(status));
  return 1;
}
