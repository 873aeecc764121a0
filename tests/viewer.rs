//! `geopurify view` as a person meets it: in a real browser, and by requests of strangers.
//!
//! The browser is Chromium without a window. It is told what to do over its DevTools protocol, through two pipes.

#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use geopurify::cloud::{Field, PointCloud};
use geopurify::query::saved::{self, Saved};
use serde_json::{Value, json};
use tempfile::TempDir;

use program::{failure, geopurify, stdout};

/// Longest time that anything on the page may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 800;
/// Points of the example room.
const NUM_POINTS: u64 = 132_909;
const WORDS: &str = "wall, floor, chair, table, sofa, bed, door, window";

/// A folder with the example room, labelled once for all tests by the demo's 3D network alone.
static RESULTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("viewer");
    let output = folder.join("room");
    let arguments = ["infer", "examples/room.ply", "--words", WORDS, "--method", "openscene", "--device", "cpu", "-q"];
    stdout(&geopurify(&[&arguments[..], &["-o", text(&output)]].concat()));
    folder
});

/// A copy of the results under another name, which a test may change.
fn copy(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join(name);
    fs::create_dir(&to).unwrap();
    for file in fs::read_dir(RESULTS.join("room")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    (folder, to)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Results of many rooms beside each other, with as many copies of the example room.
fn rooms(copies: usize) -> (TempDir, PathBuf) {
    let from = RESULTS.join("room");
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("rooms");
    fs::create_dir(&to).unwrap();
    fs::copy(from.join("summary.json"), to.join("summary.json")).unwrap();
    let room = PointCloud::read(&from.join("labelled.ply")).unwrap();
    let saved = Saved::read(&from.join("features.safetensors")).unwrap();
    let column = |name: &str| -> Vec<f32> {
        let data = &room.attribute(name).unwrap().data;
        let one: Vec<f32> = (0..room.len()).map(|i| data.get_f64(i).unwrap() as f32).collect();
        one.repeat(copies)
    };
    let side = (copies as f64).sqrt().ceil() as usize;
    let place = |copy: usize| [12.0 * (copy % side) as f64, 8.0 * (copy / side) as f64];
    let mut rooms = PointCloud { colors: Some(room.colors.clone().unwrap().repeat(copies)), ..PointCloud::default() };
    let mut voxel_from_point = Vec::new();
    for copy in 0..copies {
        let [x, y] = place(copy);
        rooms.positions.extend(room.positions.iter().map(|p| [p[0] + x, p[1] + y, p[2]]));
        let first = (copy * saved.coords.len()) as i32;
        voxel_from_point.extend(saved.voxel_from_point.iter().map(|&voxel| if voxel < 0 { -1 } else { voxel + first }));
    }
    let labels: Vec<i32> = column("label").into_iter().map(|label| label as i32).collect();
    let fields =
        [Field::new("label", labels), Field::new("score", column("score")), Field::new("margin", column("margin"))];
    rooms.write_ply(&to.join("labelled.ply"), &fields).unwrap();
    let lifted = saved.lifted_label.clone().unwrap().repeat(copies);
    let (features, coords) = (saved.features.repeat(copies), saved.coords.repeat(copies));
    saved::write(&to.join("features.safetensors"), &saved.about, &features, &coords, &voxel_from_point, &lifted)
        .unwrap();
    (folder, to)
}

/// `geopurify view`, which ends with this.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_geopurify"))
            .args([&["view", "-q", "--device", "cpu"][..], arguments].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let url = url.trim().to_owned();
        assert!(url.starts_with("http://"), "{url}");
        Self { child, url }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap().split('/').next().unwrap()
    }

    /// Sends a request as it stands. Returns the status, the head and the body.
    fn send(&self, request: &str) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let end = reply.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(reply[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, reply[end + 4..].to_vec())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let address = self.address();
        let (status, _, body) =
            self.send(&format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    fn post(&self, path: &str, body: &str) -> (u16, Vec<u8>) {
        let (address, length) = (self.address(), body.len());
        let (status, _, body) = self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        ));
        (status, body)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// One browser at a time: a machine may have two cores.
static ONE: Mutex<()> = Mutex::new(());

/// A browser with one tab.
struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: String,
    next: u64,
    /// Faults that the page told its console.
    faults: Vec<String>,
    _folder: TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Browser {
    fn start(extra: &[&str]) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| {
            let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
            let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
            let found = names.into_iter().find(is_there);
            found.expect("no Chromium for the test of the viewer: apt-get install chromium, or set CHROMIUM").to_owned()
        });
        let folder = tempfile::tempdir().unwrap();
        let profile = format!("--user-data-dir={}", text(folder.path()));
        let size = format!("--window-size={WIDTH},{HEIGHT}");
        // The browser reads commands from descriptor 3 and writes to 4. Its own output goes nowhere.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", &program])
            .args(["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"])
            .args([
                "--disable-component-update",
                "--disable-sync",
                "--use-angle=swiftshader",
                "--enable-unsafe-swiftshader",
            ])
            .args(["--hide-scrollbars", "--force-device-scale-factor=1", "--remote-debugging-pipe", &profile, &size])
            .args(extra)
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut browser =
            Self { child, to, from, session: String::new(), next: 0, faults: Vec::new(), _folder: folder, _one: one };
        let targets = browser.call("Target.getTargets", &json!({}));
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap();
        let attached = browser.call("Target.attachToTarget", &json!({ "targetId": page["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        let metrics = json!({ "width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", &metrics);
        browser
    }

    /// Calls a method that must succeed.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method and waits for its result.
    fn try_call(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser ended");
            let message: Value = serde_json::from_slice(&bytes).unwrap();
            if message["id"] == self.next {
                let is_error = !message["error"].is_null();
                return if is_error { Err(message["error"].clone()) } else { Ok(message["result"].clone()) };
            }
            let (params, kind) = (&message["params"], message["method"].as_str().unwrap_or_default());
            match kind {
                "Runtime.exceptionThrown" => self.faults.push(params["exceptionDetails"].to_string()),
                "Runtime.consoleAPICalled" if ["error", "warning"].contains(&params["type"].as_str().unwrap()) => {
                    self.faults.push(params["args"].to_string());
                }
                "Log.entryAdded" if params["entry"]["level"] == "error" => {
                    self.faults.push(params["entry"].to_string())
                }
                _ => {}
            }
        }
    }

    fn go(&mut self, url: &str) {
        let navigated = self.call("Page.navigate", &json!({ "url": url }));
        assert!(navigated["errorText"].is_null(), "{url}: {navigated}");
    }

    fn eval(&mut self, script: &str) -> Value {
        let parameters = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(result["exceptionDetails"].is_null(), "{script}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until a script is true. While a page is loaded there is none that could be asked.
    fn wait(&mut self, script: &str) {
        let start = Instant::now();
        let parameters = json!({ "expression": script, "returnByValue": true });
        while !self.try_call("Runtime.evaluate", &parameters).is_ok_and(|found| found["result"]["value"] == true) {
            if start.elapsed() > PATIENCE {
                let page = self.eval("document.body.innerText");
                panic!("still not {script}; faults {:?}; the page says {page}", self.faults);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until all points for the present look are there and the camera rests.
    fn rest(&mut self) {
        self.wait("canvas.dataset.ready === 'true' && canvas.dataset.complete === 'true'");
        let mut before = Value::Null;
        let start = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(600));
            let now = self.eval("location.hash + canvas.dataset.points + canvas.dataset.complete");
            if now == before || start.elapsed() > PATIENCE {
                return;
            }
            before = now;
        }
    }

    fn key(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && key.len() == 1 {
                event["text"] = key.into();
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    fn click(&mut self, x: f64, y: f64) {
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event);
        }
    }

    /// Clicks the middle of an element.
    fn click_on(&mut self, selector: &str) {
        let place = self.eval(&format!(
            "(() => {{ const b = document.querySelector({selector:?}).getBoundingClientRect(); \
             return [b.x + b.width / 2, b.y + b.height / 2] }})()"
        ));
        self.click(place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    }

    /// Types words into the text box and waits for the answer.
    fn ask(&mut self, words: &str) {
        self.eval("delete canvas.dataset.answer; document.getElementById('words').value = ''; document.getElementById('words').focus()");
        self.call("Input.insertText", &json!({ "text": words }));
        self.wait("canvas.dataset.answer !== undefined");
        self.rest();
    }

    /// What is on the screen.
    fn picture(&mut self) -> image::RgbImage {
        let shot = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let png = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        image::load_from_memory(&png).unwrap().into_rgb8()
    }

    fn assert_no_faults(&self) {
        assert!(self.faults.is_empty(), "{:#?}", self.faults);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Pixels in the middle of the page, where no panel is, that a test finds.
fn count(picture: &image::RgbImage, is_one: impl Fn([u8; 3]) -> bool) -> usize {
    let inner = picture.enumerate_pixels().filter(|(x, y, _)| (280..990).contains(x) && (110..730).contains(y));
    inner.filter(|(_, _, pixel)| is_one(pixel.0)).count()
}

/// Yellow to orange, as only the hottest points are.
fn is_hot([red, green, blue]: [u8; 3]) -> bool {
    red > 225 && green > 110 && blue < 130 && u16::from(red) > u16::from(blue) + 110
}

/// Mean difference of two pictures in the middle of the page, 0 to 255.
fn difference(a: &image::RgbImage, b: &image::RgbImage) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for (x, y, pixel) in a.enumerate_pixels() {
        if (280..990).contains(&x) && (110..730).contains(&y) {
            sum += pixel.0.iter().zip(b.get_pixel(x, y).0).map(|(&a, b)| f64::from(a.abs_diff(b))).sum::<f64>();
            count += 3;
        }
    }
    sum / f64::from(count)
}

#[test]
fn a_person_looks_asks_and_clicks() {
    let served = Served::start(&[text(&RESULTS.join("room"))]);
    let mut browser = Browser::start(&[]);
    browser.go(&served.url);
    browser.rest();
    let labelled = browser.picture();
    let drawn: u64 = browser.eval("canvas.dataset.points").as_str().unwrap().parse().unwrap();
    assert!((30_000..=NUM_POINTS).contains(&drawn), "{drawn} points drawn");
    assert_eq!(browser.eval("document.getElementById('count').textContent"), "132 909 points");
    assert_eq!(browser.eval("document.title"), "room – geopurify");
    // Labels cover a good part of the page, and the legend and the list say what they are.
    assert!(count(&labelled, |[r, g, b]| r.max(g).max(b) - r.min(g).min(b) > 50) > 60_000);
    let legend = browser.eval("[...document.querySelectorAll('#legend .name')].map((e) => e.textContent)");
    let legend: Vec<String> = serde_json::from_value(legend).unwrap();
    assert!(["wall", "floor", "chair"].iter().all(|name| legend.iter().any(|line| line == name)), "{legend:?}");
    assert!(browser.eval("document.querySelectorAll('#objects li').length").as_u64().unwrap() > 5);

    // Words: the heat appears, the places are listed, the URL tells.
    browser.ask("chair");
    let hot = browser.picture();
    let [before, after] = [&labelled, &hot].map(|picture| count(picture, is_hot));
    assert!(after > before + 2500, "{before} hot pixels, then {after}");
    assert!(difference(&labelled, &hot) > 8.0);
    assert_eq!(browser.eval("document.querySelector('#objects b').textContent"), "chair 1");
    let told = browser.eval("document.getElementById('answer').textContent").as_str().unwrap().to_owned();
    assert!(told.contains("nearer to “chair” than to"), "{told}");
    assert!(browser.eval("location.hash").as_str().unwrap().contains("words=chair"));

    // A click in the list chooses and moves the camera.
    let eye = "new URLSearchParams(location.hash.slice(1)).get('eye')";
    let before = browser.eval(eye);
    browser.click_on("#objects li");
    browser.rest();
    assert_eq!(browser.eval("canvas.dataset.selected"), "1");
    let near = browser.eval(eye);
    let chosen = browser.eval("location.hash").as_str().unwrap().to_owned();
    assert_ne!(before, near);
    // A click on its points does too.
    browser.eval("canvas.focus()");
    browser.key("Escape", 27);
    assert_eq!(browser.eval("canvas.dataset.selected"), "0");
    browser.key("f", 70);
    browser.rest();
    assert_ne!(browser.eval(eye), near);
    browser.eval(&format!("delete canvas.dataset.ready; location.hash = {}", json!(chosen.replace("&object=1", ""))));
    browser.rest();
    // The scan has a hole in the middle of the chair: its seat was not seen.
    let around = [(60.0, -150.0), (-180.0, 60.0), (100.0, 120.0), (0.0, -100.0)];
    let is_chosen = around.into_iter().any(|(x, y)| {
        browser.click(f64::from(WIDTH) / 2.0 + x, f64::from(HEIGHT) / 2.0 + y);
        std::thread::sleep(Duration::from_millis(400));
        browser.eval("Number(canvas.dataset.selected) > 0") == true
    });
    assert!(is_chosen, "no click chose an object");
    browser.rest();
    assert_eq!(browser.eval("document.querySelectorAll('#objects li.selected').length"), 1);

    // Unknown words are told as such. Several words are new labels. Both can be undone.
    browser.ask("zeppelin");
    let told = browser.eval("document.getElementById('answer').textContent").as_str().unwrap().to_owned();
    assert!(told.starts_with("The model never met “zeppelin” in training"), "{told}");
    browser.ask("chair, floor");
    let names = browser.eval("[...document.querySelectorAll('#legend .name')].map((e) => e.textContent).sort().join()");
    assert!(names.as_str().unwrap().starts_with("chair,floor"), "{names}");
    browser.eval("document.getElementById('undo').click()");
    browser.wait("[...document.querySelectorAll('#legend .name')].some((e) => e.textContent === 'sofa')");
    assert_eq!(browser.eval("document.getElementById('words').value"), "zeppelin");
    browser.assert_no_faults();
}

#[test]
fn every_colour_and_tool_works() {
    let served = Served::start(&[text(&RESULTS.join("room"))]);
    let mut browser = Browser::start(&[]);
    browser.go(&served.url);
    browser.rest();
    browser.eval("canvas.focus()");
    let mut pictures: Vec<image::RgbImage> = Vec::new();
    for mode in ["1", "2", "4", "5", "6"] {
        browser.key(mode, mode.as_bytes()[0].into());
        browser.rest();
        let picture = browser.picture();
        assert!(pictures.iter().all(|other| difference(other, &picture) > 3.0), "mode {mode}");
        pictures.push(picture);
    }
    assert_eq!(browser.eval("document.getElementById('scale-title').textContent"), "lead over the next label");
    browser.key("3", 51);
    assert_eq!(browser.eval("document.getElementById('swipe').hidden"), false);
    browser.key("2", 50);
    // An eye hides a label, and the URL keeps it.
    let all = browser.picture();
    browser.click_on("#legend .eye");
    browser.rest();
    let less = browser.picture();
    assert!(difference(&all, &less) > 3.0);
    assert!(browser.eval("location.hash").as_str().unwrap().contains("hide="));
    // Half the room is cut away.
    browser.key("c", 67);
    browser.eval("const r = document.querySelectorAll('#clip input')[1]; r.value = 0.5; r.oninput()");
    browser.rest();
    assert!(difference(&less, &browser.picture()) > 3.0);
    assert!(browser.eval("location.hash").as_str().unwrap().contains("clip=0%2C0.5"));
    browser.eval("document.getElementById('clip-reset').click()");
    // Two clicks measure.
    browser.key("m", 77);
    for x in [-60.0, 60.0] {
        browser.click(f64::from(WIDTH) / 2.0 + x, f64::from(HEIGHT) / 2.0 + 60.0);
    }
    browser.wait("/Distance [0-9.]+ m/.test(document.getElementById('measure-text').textContent)");
    browser.key("Escape", 27);
    // The page is light or dark, as the system wants, and the key changes that.
    let is_light = |[r, g, b]: [u8; 3]| r > 200 && g > 200 && b > 200;
    let before = count(&browser.picture(), is_light);
    browser.key("t", 84);
    browser.rest();
    assert!(count(&browser.picture(), is_light).abs_diff(before) > 30_000);
    browser.eval("document.getElementById('t-help').click()");
    assert_eq!(browser.eval("document.getElementById('help').open"), true);
    browser.assert_no_faults();
}

#[test]
fn an_exported_page_shows_the_same_without_a_network() {
    let results = RESULTS.join("room");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("room.html");
    let told = stdout(&geopurify(&[
        "view",
        text(&results),
        "--export",
        text(&file),
        "--ask",
        "chair",
        "--device",
        "cpu",
        "-q",
    ]));
    let megabytes = fs::metadata(&file).unwrap().len() as f64 / 1e6;
    assert!(told.contains(&format!("{megabytes:.1} MB")) && megabytes < 6.0, "{told}");

    let served = Served::start(&[text(&results)]);
    let mut browser = Browser::start(&[]);
    browser.go(&served.url);
    browser.rest();
    let (labels, drawn) = (browser.picture(), browser.eval("canvas.dataset.points"));
    browser.ask("chair");
    let heat = browser.picture();
    let objects = browser.eval("document.getElementById('objects').textContent");

    let offline = json!({ "offline": true, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0 });
    browser.call("Network.emulateNetworkConditions", &offline);
    drop(served);
    browser.go(&format!("file://{}", text(&file)));
    browser.rest();
    assert_eq!(browser.eval("canvas.dataset.points"), drawn);
    assert!(difference(&labels, &browser.picture()) < 1.0);
    browser.ask("chair");
    assert!(difference(&heat, &browser.picture()) < 1.0);
    assert_eq!(browser.eval("document.getElementById('objects').textContent"), objects);
    browser.assert_no_faults();

    let thin = folder.path().join("thin.html");
    stdout(&geopurify(&[
        "view",
        text(&results),
        "--export",
        text(&thin),
        "--max-points",
        "20000",
        "--device",
        "cpu",
        "-q",
    ]));
    browser.go(&format!("file://{}", text(&thin)));
    browser.rest();
    assert_eq!(browser.eval("document.getElementById('count').textContent"), "20 000 of 132 909 points");
    assert!(fs::metadata(&thin).unwrap().len() < fs::metadata(&file).unwrap().len());
}

#[test]
fn an_exported_scene_is_gltf_with_the_objects_of_the_page() {
    let results = RESULTS.join("room");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("room.glb");
    let arguments = ["view", text(&results), "--export", text(&file), "--max-points", "20000", "--device", "cpu", "-q"];
    let told = stdout(&geopurify(&arguments));
    let bytes = fs::read(&file).unwrap();
    assert!(told.contains(&format!("{:.1} MB", bytes.len() as f64 / 1e6)), "{told}");
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((&bytes[..4], number(4), number(8), &bytes[16..20]), (&b"glTF"[..], 2, bytes.len(), &b"JSON"[..]));
    let scene: Value = serde_json::from_slice(&bytes[20..20 + number(12)]).unwrap();
    assert_eq!((&scene["asset"]["version"], &scene["accessors"][0]["count"]), (&json!("2.0"), &json!(20_000)));
    // The room is in metres with y up: its points are below one another along z of the scan.
    let [low, high] = ["min", "max"].map(|end| scene["accessors"][0][end][2].as_f64().unwrap());
    assert!((2.0..4.0).contains(&(high - low)), "{low} to {high}");
    let rotation: Vec<f64> = serde_json::from_value(scene["nodes"][0]["rotation"].clone()).unwrap();
    // A quarter turn about x; a rotation has two quaternions.
    assert!((rotation[0] * rotation[3] + 0.5).abs() < 0.01, "{rotation:?}");

    let served = Served::start(&[text(&results)]);
    let (status, body) = served.get("/api/objects?scan=0");
    assert_eq!(status, 200);
    let listed: Vec<&str> = body
        .match_indices("\"name\":\"")
        .map(|(at, key)| {
            let name = &body[at + key.len()..];
            &name[..name.find('"').unwrap()]
        })
        .collect();
    let nodes = scene["nodes"].as_array().unwrap();
    assert!(listed.len() > 5 && nodes.len() == listed.len() + 2, "{} of {}", nodes.len(), listed.len());
    for (i, (name, node)) in listed.iter().zip(&nodes[2..]).enumerate() {
        assert_eq!(node["name"], format!("{name} {}", i + 1));
        let mesh = &scene["meshes"][node["mesh"].as_u64().unwrap() as usize];
        assert!(mesh["primitives"][0]["mode"] == 1 && node["scale"].as_array().unwrap().len() == 3);
    }
    let message = failure(&[&arguments[..], &["--ask", "chair"]].concat());
    assert!(message.contains("a .glb holds no answers"), "{message}");
}

#[test]
fn hostile_names_are_text() {
    let name = "<img src=x onerror=alert(1)>";
    let (_folder, results) = copy(name);
    let summary = fs::read_to_string(results.join("summary.json")).unwrap();
    let hostile =
        summary.replacen("\"name\": \"floor\"", "\"name\": \"</script><script>document.title='bad'</script>\"", 1);
    assert_ne!(summary, hostile);
    fs::write(results.join("summary.json"), hostile).unwrap();
    let served = Served::start(&[text(&results)]);
    let mut browser = Browser::start(&[]);
    browser.go(&served.url);
    browser.rest();
    assert_eq!(browser.eval("document.getElementById('name').textContent"), name);
    assert_eq!(browser.eval("document.title"), format!("{name} – geopurify"));
    assert_eq!(browser.eval("document.querySelectorAll('img, script:not([data-kind])').length"), 1);
    let legend = browser.eval("document.getElementById('legend').textContent").as_str().unwrap().to_owned();
    assert!(legend.contains("</script><script>document.title='bad'</script>"), "{legend}");
    browser.assert_no_faults();
}

#[test]
fn several_results_have_a_start_page_and_a_browser_without_webgl_a_sentence() {
    let (folder, results) = copy("one");
    let broken = folder.path().join("two");
    fs::create_dir(&broken).unwrap();
    for file in fs::read_dir(&results).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), broken.join(file.file_name())).unwrap();
    }
    fs::write(broken.join("summary.json"), "{}").unwrap();
    let served = Served::start(&[text(folder.path())]);
    let mut browser = Browser::start(&[]);
    browser.go(&served.url);
    browser.wait("document.querySelectorAll('#scans .card').length === 2");
    browser.wait("document.querySelector('#scans img').naturalWidth > 500");
    let told = browser.eval("document.querySelector('#scans .wrong').textContent").as_str().unwrap().to_owned();
    assert!(told.contains("summary.json") && told.contains("classes"), "{told}");
    browser.click_on("#scans a");
    browser.rest();
    assert_eq!(browser.eval("document.getElementById('name').textContent"), "one");
    browser.assert_no_faults();
    drop(browser);

    let mut browser = Browser::start(&["--disable-3d-apis"]);
    browser.go(&served.url);
    browser.wait("!document.getElementById('message').hidden");
    let told = browser.eval("document.querySelector('#message p').textContent").as_str().unwrap().to_owned();
    assert!(told.starts_with("This browser shows no 3D graphics"), "{told}");
    assert!(browser.faults.iter().all(|fault| !fault.contains("stack")), "{:?}", browser.faults);
}

#[test]
fn only_known_paths_and_own_names_are_served() {
    let served = Served::start(&[text(&RESULTS.join("room"))]);
    assert_eq!(served.get("/").0, 200);
    let (status, list) = served.get("/api/list");
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        (status, &list["scans"][0]["name"], &list["scans"][0]["points"]),
        (200, &json!("room"), &json!(NUM_POINTS))
    );
    for path in [
        "/summary.json",
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "//etc/passwd",
        "/api",
        "/api/scan",
        "/api/scan?scan=7",
        "/api/scan?scan=-1",
        "/api/points?scan=0&from=0&count=9999999",
        "/api/points?scan=0&from=132000&count=1000",
        "/api/points?scan=0&from=18446744073709551615&count=1",
        "/api/sheet?scan=..",
    ] {
        let (status, body) = served.get(path);
        assert_eq!(status, 404, "{path}: {body}");
    }
    assert_eq!(served.get("/api/query").0, 405);
    let address = served.address().to_owned();
    let (status, head, _) = served.send(&format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"));
    let head = head.to_lowercase();
    assert_eq!(status, 200);
    for header in ["x-content-type-options: nosniff", "x-frame-options: deny", "cache-control: no-store"] {
        assert!(head.contains(header), "{head}");
    }
    let (status, _, body) = served.send("GET / HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 403);
    assert!(String::from_utf8_lossy(&body).contains("its own address only"));
    let body = r#"{"scan":0,"words":"chair"}"#;
    let (status, _, _) = served.send(&format!(
        "POST /api/query HTTP/1.1\r\nHost: {address}\r\nOrigin: http://evil.example\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(status, 403);
}

#[test]
fn questions_have_limits_and_answers_a_form() {
    let served = Served::start(&[text(&RESULTS.join("room"))]);
    let (status, reply) = served.post("/api/query", r#"{"scan":0,"words":"  chair "}"#);
    assert_eq!(status, 200);
    let length = u32::from_le_bytes(reply[..4].try_into().unwrap()) as usize;
    let about: Value = serde_json::from_slice(&reply[4..4 + length]).unwrap();
    assert_eq!((&about["question"], &about["known"], &about["nearest"]), (&json!("chair"), &json!(true), &json!(true)));
    let num_points = NUM_POINTS as usize;
    assert_eq!(reply.len(), 4 + length + 3 * num_points);
    let object_of_point = &reply[4 + length..4 + length + 2 * num_points];
    let in_first = object_of_point.as_chunks::<2>().0.iter().filter(|bytes| **bytes == [1, 0]).count();
    assert!(in_first as u64 >= about["objects"][0]["voxels"].as_u64().unwrap());
    // The command line finds the same places.
    let json = geopurify(&["query", text(&RESULTS.join("room")), "chair", "--json", "--device", "cpu"]);
    let queried: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(queried["num_places"], about["places"]);
    assert_eq!(queried["places"][0]["center"], about["objects"][0]["center"]);

    let (status, reply) = served.post("/api/labels", r#"{"scan":0,"words":["chair","zeppelin"," "]}"#);
    assert_eq!(status, 200);
    let length = u32::from_le_bytes(reply[..4].try_into().unwrap()) as usize;
    let about: Value = serde_json::from_slice(&reply[4..4 + length]).unwrap();
    assert_eq!((&about["words"], &about["legend"][1]["known"]), (&json!(["chair", "zeppelin"]), &json!(false)));
    assert_eq!(reply.len(), 4 + length + 6 * num_points);

    let long = "a".repeat(201);
    let many: Vec<String> = (0..300).map(|i| i.to_string()).collect();
    let refused = |path: &str, body: &Value, status: u16, part: &str| {
        let (found, reply) = served.post(path, &body.to_string());
        let told = String::from_utf8_lossy(&reply).into_owned();
        assert!(found == status && told.contains(part), "{found} {told}");
    };
    refused("/api/query", &json!({ "scan": 0, "words": long }), 422, "at most 200");
    refused("/api/query", &json!({ "scan": 0, "words": " " }), 422, "no words");
    refused("/api/query", &json!({ "scan": 9, "words": "chair" }), 404, "no such thing");
    refused("/api/query", &json!({ "words": 7 }), 400, "not a question");
    refused("/api/labels", &json!({ "scan": 0, "words": [] }), 422, "no words");
    refused("/api/labels", &json!({ "scan": 0, "words": many }), 422, "at most 256");
    refused("/api/query", &json!({ "scan": 0, "words": "a".repeat(300_000) }), 413, "make no question");
}

#[test]
fn other_machines_need_the_token() {
    let served = Served::start(&[text(&RESULTS.join("room")), "--host", "127.0.0.1"]);
    let token = served.url.split("?t=").nth(1).unwrap().to_owned();
    assert_eq!(token.len(), 32);
    assert_eq!(served.get("/").0, 403);
    assert_eq!(served.get(&format!("/?t={}", "0".repeat(32))).0, 403);
    assert_eq!(served.get("/api/list").0, 403);
    assert_eq!(served.get(&format!("/?t={token}")).0, 200);
    assert_eq!(served.get(&format!("/api/list?t={token}")).0, 200);
}

#[test]
fn what_cannot_be_shown_is_told_in_a_sentence() {
    let (folder, results) = copy("damaged");
    let view = |path: &Path| failure(&["view", text(path), "--device", "cpu"]);
    let features = results.join("features.safetensors");
    let honest = fs::read(&features).unwrap();
    let mut flipped = honest.clone();
    let at = flipped.len() / 2;
    flipped[at] ^= 1;
    fs::write(&features, &flipped).unwrap();
    assert!(view(&results).contains("features.safetensors"));
    fs::write(&features, &honest).unwrap();
    let scan = results.join("labelled.ply");
    let ply = fs::read(&scan).unwrap();
    fs::write(&scan, &ply[..ply.len() / 2]).unwrap();
    assert!(view(&results).contains("labelled.ply"));
    fs::write(&scan, &ply).unwrap();
    let summary = fs::read_to_string(results.join("summary.json")).unwrap();
    fs::write(results.join("summary.json"), &summary[..summary.len() / 3]).unwrap();
    assert!(view(&results).contains("summary.json"));
    fs::write(results.join("summary.json"), &summary).unwrap();
    fs::remove_file(&features).unwrap();
    let told = view(&results);
    assert!(told.contains("the results lack features.safetensors"), "{told}");
    assert!(view(&folder.path().join("none")).contains("no such file or folder"));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let told = failure(&["view", text(&RESULTS.join("room")), "--port", &port, "--device", "cpu"]);
    assert!(told.contains("another program uses this port") && told.contains("--port"), "{told}");
}

#[test]
fn the_server_outlives_tabs_and_broken_connections() {
    let served = Served::start(&[text(&RESULTS.join("room"))]);
    for part in
        ["", "GET", "GET / HTTP/1.1\r\n", "\0\0\0\0\r\n\r\n", "POST /api/query HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"]
    {
        let mut stream = TcpStream::connect(served.address()).unwrap();
        stream.write_all(part.as_bytes()).unwrap();
    }
    // A reader that leaves in the middle of a large reply.
    let mut stream = TcpStream::connect(served.address()).unwrap();
    let request = format!("GET /api/points?scan=0&from=0&count=100000 HTTP/1.1\r\nHost: {}\r\n\r\n", served.address());
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    drop(stream);
    let mut browser = Browser::start(&[]);
    browser.go(&served.url);
    browser.wait("document.getElementById('view') && !document.getElementById('view').hidden");
    drop(browser);
    assert_eq!(served.get("/").0, 200);
    assert_eq!(served.post("/api/query", r#"{"scan":0,"words":"table"}"#).0, 200);
}

#[test]
fn a_large_scan_shows_the_whole_first_and_serves_many_tabs() {
    const COPIES: usize = 4;
    const TABS: usize = 20;
    const QUESTIONS: usize = 10;
    let (_folder, results) = rooms(COPIES);
    let served = Served::start(&[text(&results)]);
    let (status, scan) = served.get("/api/scan?scan=0");
    let scan: Value = serde_json::from_str(&scan).unwrap();
    let num_points = COPIES * NUM_POINTS as usize;
    assert_eq!((status, scan["points"].as_u64().unwrap() as usize), (200, num_points));
    // The first cube fits into a megabyte and has points of all rooms.
    let first = &scan["nodes"][0];
    let (size, count) = (first[3].as_f64().unwrap(), first[6].as_u64().unwrap() as usize);
    assert!(count > 5000 && count * 16 < 1_000_000, "{count} points");
    let (_, head, places) = served.send(&format!(
        "GET /api/points?scan=0&from=0&count={count} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        served.address()
    ));
    assert!(head.contains(&format!("content-length: {}", count * 16)), "{head}");
    let at = |place: &[u8; 8], axis: usize| {
        let number = u16::from_le_bytes([place[2 * axis], place[2 * axis + 1]]);
        f64::from(number) / 65535.0 * size
    };
    let mut in_room = [0; COPIES];
    for place in places[..count * 8].as_chunks::<8>().0 {
        let room = usize::from(at(place, 0) > 10.5) + 2 * usize::from(at(place, 1) > 6.5);
        in_room[room] += 1;
    }
    assert!(in_room.iter().all(|&points| points > count / 8), "{in_room:?}");

    std::thread::scope(|threads| {
        for tab in 0..TABS {
            let served = &served;
            threads.spawn(move || {
                let (status, _) = served.get("/api/objects?scan=0");
                assert_eq!(status, 200);
                let word = ["chair", "table", "bed", "lamp"][tab % 4];
                let (status, reply) = served.post("/api/query", &json!({ "scan": 0, "words": word }).to_string());
                assert_eq!(status, 200);
                let length = u32::from_le_bytes(reply[..4].try_into().unwrap()) as usize;
                assert_eq!(reply.len(), 4 + length + 3 * num_points);
            });
        }
    });
    for question in 0..QUESTIONS {
        let body = json!({ "scan": 0, "words": format!("chair number {question}") });
        assert_eq!(served.post("/api/query", &body.to_string()).0, 200);
    }
}
