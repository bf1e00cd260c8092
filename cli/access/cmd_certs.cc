#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "cli/access/certificates.h"
#include "cli/access/private_file.h"
#include "cli/commands.h"
#include "common/output.h"
#include "common/tls_files.h"

namespace fathom::client {
namespace {

constexpr int64_t kPemBytesMax = 1 << 20;

struct CertsFlags {
  std::string dir, hosts = "localhost,127.0.0.1,::1";
  int32_t days = 365;
};

absl::Status WritePair(const std::string& path, const KeyAndCertificate& made) {
  FATHOM_RETURN_IF_ERROR(WritePrivateFile(path + ".key", made.key));
  return WritePrivateFile(path + ".crt", made.certificate);
}

// The root of the folder, which is made if there is none.
absl::StatusOr<KeyAndCertificate> RootOf(const CertsFlags& flags) {
  const std::string path = flags.dir + "/ca";
  if (access((path + ".crt").c_str(), F_OK) == 0) {
    FATHOM_ASSIGN_OR_RETURN(const std::string key, ReadWholeFile(path + ".key", kPemBytesMax));
    FATHOM_ASSIGN_OR_RETURN(const std::string crt, ReadWholeFile(path + ".crt", kPemBytesMax));
    return KeyAndCertificate{key, crt};
  }
  FATHOM_ASSIGN_OR_RETURN(
      const KeyAndCertificate root,
      MakeRoot({.common_name = "Fathom development root", .hosts = {}, .days = 10 * 365}));
  FATHOM_RETURN_IF_ERROR(WritePair(path, root));
  return root;
}

absl::Status MakeAll(const CertsFlags& flags) {
  if (flags.dir.empty()) return Invalid("--dir is missing; give the folder for the files");
  if (mkdir(flags.dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return Invalid("--dir {}: cannot be made: {}", flags.dir, std::strerror(errno));
  }
  FATHOM_ASSIGN_OR_RETURN(const KeyAndCertificate root, RootOf(flags));
  const std::vector<std::string> hosts = SplitCommas(flags.hosts);
  const std::pair<const char*, std::vector<std::string>> all[] = {{"scheduler", {kSchedulerName}},
                                                                  {"router", {kRouterName}},
                                                                  {"worker", {kWorkerName}},
                                                                  {"operator", {kOperatorName}},
                                                                  {"server", hosts}};
  for (const auto& [name, names] : all) {
    FATHOM_ASSIGN_OR_RETURN(
        const KeyAndCertificate made,
        MakeCertificate({.common_name = name, .hosts = names, .days = flags.days}, root));
    FATHOM_RETURN_IF_ERROR(WritePair(flags.dir + "/" + name, made));
  }
  PrintAnswer(
      "{0}: a root (ca), certificates of scheduler, router, worker and operator, and one of the "
      "router's ports for clients ({1}).\n"
      "  fathom serve --cluster-certs {0} --tls-cert {0}/server.crt --tls-key {0}/server.key ...\n"
      "  fathom status --tls-ca {0}/ca.crt\n",
      flags.dir, flags.hosts);
  return absl::OkStatus();
}

}  // namespace

int RunCerts(int argc, const char* const* argv) {
  CertsFlags certs;
  Flags flags(
      "fathom certs",
      "Makes a root and certificates for all processes, for development. With a root in the "
      "folder it makes new certificates of it, which running processes take.");
  flags.Group("Certificates");
  flags.Add("--dir", &certs.dir, "Folder for the files");
  flags.Add("--hosts", &certs.hosts,
            "Names and addresses by which clients reach a router, with commas");
  flags.Add("--days", &certs.days, -3650, 3650,
            "How long the certificates are valid; below 0: they have expired, for tests");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  const absl::Status status = MakeAll(certs);
  return status.ok() ? kExitOk : Fail("certs", status);
}

}  // namespace fathom::client
