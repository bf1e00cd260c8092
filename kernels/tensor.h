// kernels/tensor.h: element types and the view through which ops read weights.
// Activations are plain fp32 arrays with a row stride; only weights come in several types and
// layouts. Namespace fathom::kernels depends on the standard library alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom::kernels {

enum class DType : uint8_t { kF32, kBf16, kF16 };

constexpr size_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

constexpr const char* NameOf(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kBf16 ? "bfloat16" : "float16";
}

enum class Layout : uint8_t {
  kRowMajor,  // As in a checkpoint: element (n, k) at n * k_size + k.
  kPacked,    // Made by PackWeight (kernels/gemm.h), read by Gemm only.
};

// A weight matrix [rows, cols]. In a GEMM y = W x, `rows` is the number of outputs and the
// reduction goes over `cols`. The view does not own `data`, which is aligned to 64 bytes and
// outlives the view.
struct TensorView {
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kF32;
  Layout layout = Layout::kRowMajor;
};

}  // namespace fathom::kernels
