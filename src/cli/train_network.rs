//! `geopurify train --method openscene`: trains a 3D network on the features that views put on the scenes.

use std::io::Write as _;

use anyhow::{Context, Result, bail};

use super::networks::{open_session, write_used};
use super::outputs::check_writable;
use super::pretrain::{report, run_task};
use super::say;
use super::train::{TrainArgs, check_name, find, prepare_all, write_sources};
use crate::counted::counted;
use crate::distill::{Config, Recipe};
use crate::models::import::{ImportOptions, import};
use crate::pretrain::openscene::{LiftedSettings, LiftedTask};
use crate::pretrain::run::CONFIG_FILE;
use crate::session::{Network, Networks};
use crate::weights::registry::Registry;
use crate::weights::store::Store;

pub(super) fn run(args: &TrainArgs) -> Result<()> {
    check_name(args)?;
    for (option, is_given) in [
        ("--recipe", args.recipe.is_some()),
        ("--validate-every", args.validate_every.is_some()),
        ("--max-memory", args.max_memory.is_some()),
    ] {
        if is_given {
            bail!("{option} is an option of the student; leave it out with --method openscene");
        }
    }
    let Some(scenes) = &args.scenes else {
        bail!(
            "--resume continues a 3D network's run on the same scenes: give --scenes again, they are prepared already"
        );
    };
    let mut settings = settings(args)?;
    args.image.check()?;
    let image_model = args.image.kind();
    let needed = [image_model.network(), Network::Sonata];
    let networks = Networks { sonata: args.teacher.choice(), ..args.image.networks() };
    check_writable(&args.output)?;
    if args.dry_run {
        let mut out = std::io::stdout().lock();
        let [training, validation] = find(args, scenes)?;
        write_sources(&mut out, [&training, &validation])?;
        set_epochs(args, &mut settings, training.len());
        writeln!(out, "{}, into {}", counted(settings.training.steps as usize, "step"), args.output.display())?;
        return write_used(&mut out, args.device, &networks, &needed);
    }
    let session = open_session(args.device, networks, &needed)?;
    // The scenes are those of a student, so both can learn from one preparation.
    let scenes = prepare_all(args, &Config::of(Recipe::Paper), scenes, &session)?;
    set_epochs(args, &mut settings, scenes.training.len());
    let [num_training, num_validation] = [&scenes.training, &scenes.validation].map(Vec::len);
    say::line(&format!("{} to learn from, {num_validation} to validate on", counted(num_training, "scene")));
    let selected = session.device();
    let training = settings.training.clone();
    let mut task = LiftedTask::new(settings, scenes, image_model.text_space(), &selected.device)?;
    let trained = run_task(&args.output, args.resume, &mut task, &training, selected)?;
    report(&trained)?;
    if let Some(name) = &args.install {
        let options = ImportOptions {
            name: Some(name.clone()),
            config: Some(args.output.join(CONFIG_FILE)),
            licence: Some("unstated".to_owned()),
            ..ImportOptions::default()
        };
        let (store, registry) = (Store::at_home()?, Registry::load(None)?);
        let imported = import(&store, &registry, "openscene", &trained.model, &options, &mut |_, _| ())?;
        writeln!(std::io::stdout().lock(), "{}", imported.installed.path.display())?;
    }
    Ok(())
}

fn settings(args: &TrainArgs) -> Result<LiftedSettings> {
    let mut settings = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            LiftedSettings::parse(&text).with_context(|| path.display().to_string())?
        }
        None => LiftedSettings::default(),
    };
    let training = &mut settings.training;
    training.seed = args.seed.unwrap_or(training.seed);
    training.keep_last = args.keep_last.map_or(training.keep_last, |count| count as usize);
    settings.validate()?;
    Ok(settings)
}

/// With `--epochs`, every scene is seen so many times.
fn set_epochs(args: &TrainArgs, settings: &mut LiftedSettings, num_scenes: usize) {
    if let Some(epochs) = args.epochs {
        settings.training.steps = (epochs * num_scenes).div_ceil(settings.batch).max(1) as u64;
    }
}
