// The CpuKernels (kernels/cpu/kernels.h) of one instruction set.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace fathom::kernels {
namespace FATHOM_ISA {

void Embedding(const EmbeddingArgs& args, int64_t row_begin, int64_t row_end);
void RmsNorm(const RmsNormArgs& args, int64_t row_begin, int64_t row_end);
void Gemm(const GemmArgs& args, int64_t tile_begin, int64_t tile_end);
void RopeKvWrite(const RopeKvWriteArgs& args, int64_t row_begin, int64_t row_end);
void PagedAttention(const PagedAttentionArgs& args, int64_t begin, int64_t end);
void Relu2(const Relu2Args& args, int64_t row_begin, int64_t row_end);
void SiluMul(const SiluMulArgs& args, int64_t row_begin, int64_t row_end);
void AddInto(const AddArgs& args, int64_t begin, int64_t end);
bool HasNonFinite(const float* z, int64_t count);
float MaxOf(const float* z, int64_t count);
float SumExp(const float* z, int64_t count, float best);
void Temper(float* z, int64_t count, float temperature);
void Masses(const float* z, int64_t count, float best, uint64_t* mass);
void AddNoise(float* z, int64_t count, uint64_t seed, int32_t sequence, int32_t position);

extern const CpuKernels kKernels;
const CpuKernels kKernels = {
    .embedding = Embedding,
    .rms_norm = RmsNorm,
    .gemm = Gemm,
    .rope_kv_write = RopeKvWrite,
    .paged_attention = PagedAttention,
    .relu2 = Relu2,
    .silu_mul = SiluMul,
    .add = AddInto,
    .has_non_finite = HasNonFinite,
    .max = MaxOf,
    .sum_exp = SumExp,
    .temper = Temper,
    .masses = Masses,
    .add_noise = AddNoise,
};

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
