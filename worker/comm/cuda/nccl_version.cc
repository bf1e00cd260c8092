#include "worker/comm/cuda/nccl_library.h"

namespace fathom::worker {

std::string NcclVersionText(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

absl::Status CheckNcclVersion(int version) {
  if (version >= kNcclVersionMin) return absl::OkStatus();
  return FailedPrecondition(
      "NCCL {} was found, {} or later is needed: install a newer libnccl2, or put its folder first "
      "in LD_LIBRARY_PATH",
      NcclVersionText(version), NcclVersionText(kNcclVersionMin));
}

}  // namespace fathom::worker
