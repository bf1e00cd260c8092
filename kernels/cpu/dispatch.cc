#include "kernels/cpu/dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <string_view>

#include "kernels/cpu/kernels.h"

namespace fathom::kernels {

#if defined(__x86_64__)
namespace avx2 {
extern const CpuKernels kKernels;
}
namespace avx512 {
extern const CpuKernels kKernels;
}
#endif

namespace {

// The work, in multiply-adds, from which a second thread is faster than one.
constexpr int64_t kGrainWork = 16 * 1024;

int64_t GrainOf(int64_t work_per_unit) {
  return std::max(int64_t{1}, kGrainWork / std::max(int64_t{1}, work_per_unit));
}

struct Supported {
  std::array<CpuIsa, 3> isas = {CpuIsa::kReference};
  size_t count = 1;
};

#if defined(__x86_64__)
// clang 16 has no name for this feature in __builtin_cpu_supports, so the bit is read by hand.
bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

Supported FindSupported() {
  Supported supported;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c()) {
    supported.isas[supported.count++] = CpuIsa::kAvx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      supported.isas[supported.count++] = CpuIsa::kAvx512;
    }
  }
#endif
  return supported;
}

CpuIsa Choose() {
  const auto supported = SupportedCpuIsas();
  if (const char* name = std::getenv("FATHOM_CPU_ISA")) {
    for (const CpuIsa isa : supported) {
      if (std::string_view(name) == CpuIsaName(isa)) return isa;
    }
  }
  return supported.back();
}

std::atomic<CpuIsa>& Selected() {
  static std::atomic<CpuIsa> selected{Choose()};
  return selected;
}

}  // namespace

const char* CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      return "reference";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
  }
  return "?";
}

std::span<const CpuIsa> SupportedCpuIsas() {
  static const Supported supported = FindSupported();
  return std::span(supported.isas).first(supported.count);
}

CpuIsa SelectedCpuIsa() { return Selected().load(std::memory_order_relaxed); }
void UseCpuIsa(CpuIsa isa) { Selected().store(isa, std::memory_order_relaxed); }

const CpuKernels* SelectedCpuKernels() {
  switch (SelectedCpuIsa()) {
    case CpuIsa::kReference:
      return nullptr;
#if defined(__x86_64__)
    case CpuIsa::kAvx2:
      return &avx2::kKernels;
    case CpuIsa::kAvx512:
      return &avx512::kKernels;
#else
    default:
      return nullptr;
#endif
  }
  return nullptr;
}

void EmbeddingCpu(const EmbeddingArgs& args, ThreadPool& pool) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return EmbeddingRef(args);
  pool.Run(args.rows, GrainOf(args.table.cols),
           [&](int64_t begin, int64_t end) { kernels->embedding(args, begin, end); });
}

void RmsNormCpu(const RmsNormArgs& args, ThreadPool& pool) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return RmsNormRef(args);
  pool.Run(args.rows, GrainOf(2 * args.groups * args.dim),
           [&](int64_t begin, int64_t end) { kernels->rms_norm(args, begin, end); });
}

void GemmCpu(const GemmArgs& args, ThreadPool& pool) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return GemmRef(args);
  if (args.rows == 0) return;
  pool.Run((args.weight.rows + kPackRows - 1) / kPackRows,
           GrainOf(args.rows * args.weight.cols * kPackRows),
           [&](int64_t begin, int64_t end) { kernels->gemm(args, begin, end); });
}

void RopeKvWriteCpu(const RopeKvWriteArgs& args, ThreadPool& pool) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return RopeKvWriteRef(args);
  pool.Run(args.row_count,
           GrainOf(2 * (args.heads + args.planes.kv_heads) * int64_t{args.planes.head_dim}),
           [&](int64_t begin, int64_t end) { kernels->rope_kv_write(args, begin, end); });
}

void PagedAttentionCpu(const PagedAttentionArgs& args, ThreadPool& pool) {
  const CpuKernels* kernels = SelectedCpuKernels();
  const int32_t dim = args.planes.head_dim;
  if (kernels == nullptr || dim % 32 != 0 || dim > 256) return PagedAttentionRef(args);
  if (args.row_count == 0) return;
  int64_t tokens = 0;
  for (int64_t r = 0; r < args.row_count; ++r) tokens += args.rows[r].position + 1;
  const int64_t units = args.row_count * args.planes.kv_heads;
  const int64_t work = tokens * args.heads * dim * 4;
  pool.Run(units, GrainOf(work / units),
           [&](int64_t begin, int64_t end) { kernels->paged_attention(args, begin, end); });
}

void Relu2Cpu(const Relu2Args& args, ThreadPool& pool) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return Relu2Ref(args);
  pool.Run(args.rows, GrainOf(2 * args.dim),
           [&](int64_t begin, int64_t end) { kernels->relu2(args, begin, end); });
}

void SiluMulCpu(const SiluMulArgs& args, ThreadPool& pool) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return SiluMulRef(args);
  pool.Run(args.rows, GrainOf(16 * args.dim),
           [&](int64_t begin, int64_t end) { kernels->silu_mul(args, begin, end); });
}

void AddCpu(const AddArgs& args, ThreadPool& pool) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return AddRef(args);
  pool.Run(args.count, GrainOf(1),
           [&](int64_t begin, int64_t end) { kernels->add(args, begin, end); });
}

}  // namespace fathom::kernels
