#include "scheduler/recorder/file_recorder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "common/log.h"

namespace fathom::scheduler {
namespace {

// The buffer keeps at most this much memory after a larger record.
constexpr size_t kKeptBytes = 1 << 20;

absl::Status RecorderError(const char* what, const std::string& path) {
  const std::string text =
      fmt::format("--record-events: cannot {} {}: {}", what, path, std::strerror(errno));
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) return Exhausted("{}", text);
  return Unavailable("{}", text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<FileRecorder>> FileRecorder::Create(const std::string& path,
                                                                   const RecordingHeader& header) {
  struct stat there = {};
  const bool exists = lstat(path.c_str(), &there) == 0;
  if (exists && !S_ISREG(there.st_mode)) {
    return Invalid("--record-events: {} is there and no file; give the name of one", path);
  }
  auto recorder = std::unique_ptr<FileRecorder>(new FileRecorder(path));
  const absl::Status begun = recorder->Begin(header, exists);
  if (absl::IsResourceExhausted(begun)) {
    LogError("{}; this scheduler runs without a recording", Message(begun));
    return recorder;
  }
  FATHOM_RETURN_IF_ERROR(begun);
  return recorder;
}

// The file has another name until its header is written, so that a full disk does not cost the
// recording that is there.
absl::Status FileRecorder::Begin(const RecordingHeader& header, bool exists) {
  const std::string unnamed = path_ + ".new";
  unlink(unnamed.c_str());
  file_ = open(unnamed.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file_ < 0) return RecorderError("make", unnamed);
  absl::Status status = Write(EncodeHeader(header));
  if (status.ok() && exists && std::rename(path_.c_str(), (path_ + ".1").c_str()) != 0) {
    status = RecorderError("rename to .1 the file that is there,", path_);
  }
  if (status.ok() && std::rename(unnamed.c_str(), path_.c_str()) != 0) {
    status = RecorderError("give its name to", path_);
  }
  if (status.ok()) return status;
  close(file_);
  file_ = -1;
  unlink(unnamed.c_str());
  return status;
}

FileRecorder::~FileRecorder() {
  if (file_ >= 0) close(file_);
}

void FileRecorder::Record(const Event& event, TimeUs now) {
  if (file_ < 0) {
    ++unrecorded_;
    return;
  }
  record_.clear();
  absl::Status status = EncodeEvent(event, now, &record_);
  if (status.ok()) status = Write(record_);
  if (!status.ok()) {
    ++unrecorded_;
    return Stop(status);
  }
  ++recorded_;
  if (record_.capacity() > kKeptBytes) record_ = {};
}

void FileRecorder::Stop(const absl::Status& why) {
  LogError("{}; the recording ends with event {}, {} bytes of it are whole", Message(why),
           recorded_, written_bytes_);
  close(file_);
  file_ = -1;
  record_ = {};
}

absl::Status FileRecorder::Write(std::string_view record) {
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t bytes = write(file_, record.data() + done, record.size() - done);
    if (bytes > 0) done += static_cast<size_t>(bytes);
    if (bytes >= 0 || errno == EINTR) continue;
    const absl::Status status = RecorderError("write", path_);
    // If this fails, a reader sees a record that was cut off, and reads up to it.
    if (ftruncate(file_, written_bytes_) != 0) LogWarn("{}", Message(RecorderError("cut", path_)));
    return status;
  }
  written_bytes_ += static_cast<int64_t>(done);
  return absl::OkStatus();
}

}  // namespace fathom::scheduler
