// kernels/cpu/dispatch.h: which instruction set the Cpu versions of the ops use. All give the
// reference's bits. The best one of the host, or what FATHOM_CPU_ISA names ("reference", "avx2",
// "avx512"; one the host lacks, or an unknown name, is ignored). Chosen at the first use. Thread:
// any; UseCpuIsa only while no op runs.
#pragma once

#include <span>

namespace fathom::kernels {

enum class CpuIsa { kReference, kAvx2, kAvx512 };

const char* CpuIsaName(CpuIsa isa);
// What this host can run; kReference always.
std::span<const CpuIsa> SupportedCpuIsas();
CpuIsa SelectedCpuIsa();
// For tests. REQUIRES: supported.
void UseCpuIsa(CpuIsa isa);

struct CpuKernels;
// nullptr: the reference.
const CpuKernels* SelectedCpuKernels();

}  // namespace fathom::kernels
