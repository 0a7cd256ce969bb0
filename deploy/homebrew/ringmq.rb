# The formula of Homebrew, which builds from source; `tools/release` puts in the address and the checksum.
class Ringmq < Formula
  desc "MQTT 3.1, 3.1.1 and 5.0 broker, thread per core"
  homepage "@URL@"
  url "@URL@"
  sha256 "@SHA256@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "build", "--release", "--locked", "--bin", "broker"
    bin.install "target/release/broker" => "ringmq"
    system "cargo", "run", "--locked", "--package", "pages", "pages"
    man1.install Dir["pages/*.1"]
    man5.install Dir["pages/*.5"]
    bash_completion.install "pages/ringmq.bash" => "ringmq"
    zsh_completion.install "pages/_ringmq"
    fish_completion.install "pages/ringmq.fish"
    (etc/"ringmq").install "deploy/broker.toml"
    doc.install Dir["docs/*.md"]
  end

  service do
    run [opt_bin/"ringmq", "--config", etc/"ringmq/broker.toml", "--data", var/"ringmq"]
    keep_alive true
    log_path var/"log/ringmq.log"
    error_log_path var/"log/ringmq.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/ringmq --version")
    (testpath/"broker.toml").write "listen = [\"127.0.0.1:#{free_port}\"]\n"
    system bin/"ringmq", "--config", "broker.toml", "--check-config"
  end
end
