// scheduler/recorder/file_recorder.h: records into a file (scheduler/recorder/recording.h), with
// one write() for each event. The file always ends with a whole record: if an event cannot be
// written (a full disk), the part that was written is cut off, one line is logged, and the
// recording stops; the scheduler continues. Thread: one.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "common/status.h"
#include "scheduler/recorder/event_recorder.h"
#include "scheduler/recorder/recording.h"

namespace fathom::scheduler {

class FileRecorder final : public EventRecorder {
 public:
  // Creates the file. Only its owner may read it, because it contains prompts and answers as token
  // ids. An existing file is renamed to PATH.1, so that a scheduler that is restarted after a crash
  // does not overwrite the recording of the crash. On a full disk nothing is renamed, one line is
  // logged, and the recorder only counts. The error names the path: INVALID_ARGUMENT (the path is
  // not a regular file) or UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<FileRecorder>> Create(const std::string& path,
                                                              const RecordingHeader& header);
  ~FileRecorder() override;
  FileRecorder(const FileRecorder&) = delete;
  FileRecorder& operator=(const FileRecorder&) = delete;

  void Record(const Event& event, TimeUs now) override;

 private:
  explicit FileRecorder(std::string path) : path_(std::move(path)) {}
  absl::Status Begin(const RecordingHeader& header, bool exists);
  // Stops the recording.
  void Stop(const absl::Status& why);
  absl::Status Write(std::string_view record);

  const std::string path_;
  int file_ = -1;              // -1: nothing is recorded.
  std::string record_;         // The event that is being written.
  int64_t written_bytes_ = 0;  // The length of the file up to its last whole record.
};

}  // namespace fathom::scheduler
