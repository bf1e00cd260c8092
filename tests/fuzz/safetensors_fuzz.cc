// A safetensors file: what the parser accepts lies inside of the file, without gap or overlap.
#include <algorithm>

#include "common/check.h"
#include "tests/fuzz/fuzz.h"
#include "worker/architecture.h"
#include "worker/checkpoint_check.h"
#include "worker/safetensors.h"

namespace {

using namespace fathom::worker;  // NOLINT: the target is all about it.

ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.layers = config.kv_heads = 1;
  config.heads = config.head_dim = 2;
  config.hidden = 4;
  config.ffn = config.vocab = 3;
  return config;
}

// A file whose tensors are the model's, F32, all zero.
std::string ValidFile() {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  int64_t end = 0;
  for (const TensorSpec& spec : ExpectedTensors(SmallConfig())) {
    const int64_t begin = end;
    end += WholeOf(spec).rows() * WholeOf(spec).cols() * 4;
    header += ",\"" + spec.name + "\":{\"dtype\":\"F32\",\"shape\":" + ShapeText(spec.shape) +
              ",\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
  }
  header += "}   ";
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i));
  return file + header + std::string(static_cast<size_t>(end), '\0');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const auto header_bytes =
      SafetensorsHeaderBytes(file.substr(0, std::min(size, kSafetensorsPrefixBytes)), size);
  if (!header_bytes.ok()) return 0;
  FATHOM_CHECK(*header_bytes + kSafetensorsPrefixBytes <= size);
  auto tensors = ParseSafetensorsHeader(file.substr(kSafetensorsPrefixBytes, *header_bytes), size);
  if (!tensors.ok()) return 0;
  uint64_t next = kSafetensorsPrefixBytes + *header_bytes;
  for (const SafetensorsTensor& tensor : *tensors) {
    FATHOM_CHECK(tensor.begin == next && tensor.end >= next && tensor.end <= size);
    next = tensor.end;
  }
  FATHOM_CHECK(next == size);
  const std::vector<ShardHeader> shards = {{"model.safetensors", *std::move(tensors)}};
  const auto checked = CheckTensors(SmallConfig(), shards, nullptr);
  if (!checked.ok()) return 0;
  FATHOM_CHECK(checked->places.size() == ExpectedTensors(SmallConfig()).size());
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {ValidFile(), std::string("\x02\0\0\0\0\0\0\0{}", 10)};
}
